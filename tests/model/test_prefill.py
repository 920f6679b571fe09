"""A prompt whose last state alone is wanted gives what the whole forward gives."""

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.model.batch import Batch, Row
from tests.embedded.models import load_pair
