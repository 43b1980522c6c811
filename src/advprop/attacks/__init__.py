"""Attacks: functions from clean images to adversarial ones. They know no branches and no models."""
