"""The holdfast command, one module for each thing an operator deals with."""
