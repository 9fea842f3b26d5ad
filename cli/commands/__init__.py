"""The commands of `holdfast`: one module for each subject of an operator's work."""
