"""The holdfast command's parts: one module for each thing a person deals with."""
