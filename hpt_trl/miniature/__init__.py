"""A tiny offline default: a 0.9M-parameter language model and the arithmetic problems it was pretrained on."""

from pathlib import Path

MODEL_PATH = str(Path(__file__).resolve().parent / "model")
