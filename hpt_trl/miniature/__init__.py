"""A tiny offline default: a language model of 0.9M parameters and the arithmetic problems it was pretrained on."""

from pathlib import Path

MODEL_PATH = str(Path(__file__).resolve().parent / "model")
