"""Runs made from CSV files of letter logits: what two models said to the same questions, without the models."""
