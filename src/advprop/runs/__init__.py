"""`train`: claims the folder, resumes, writes the result; several processes agree."""

from advprop.runs.training import train as train
