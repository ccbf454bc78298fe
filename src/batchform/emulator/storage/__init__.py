"""Cloud Storage, as far as batchform and the usual clients use it. See docs/emulator.md."""
