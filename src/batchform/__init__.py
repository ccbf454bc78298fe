"""batchform: Terraform for LLM batch jobs. See docs/design.md for its words and rules."""

__version__ = "0.1.0"
