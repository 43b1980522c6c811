"""Random numbers as a function of (seed, epoch or step, image, purpose), without any state.

Therefore a resumed run needs no generator states, and each image gets the same random numbers with
any number of loader workers or devices.
"""

from advprop.randomness.global_streams import kept_streams as kept_streams
from advprop.randomness.global_streams import mark_dropout as mark_dropout
from advprop.randomness.global_streams import random_streams as random_streams
from advprop.randomness.global_streams import seed_streams as seed_streams
from advprop.randomness.hashing import hashed as hashed
from advprop.randomness.streams import ImageStreams as ImageStreams
from advprop.randomness.streams import Randomness as Randomness
from advprop.randomness.streams import derive_seed as derive_seed
from advprop.randomness.streams import generator_for as generator_for
from advprop.randomness.streams import image_key as image_key
from advprop.randomness.streams import normal as normal
from advprop.randomness.streams import of_part as of_part
from advprop.randomness.streams import uniform as uniform
