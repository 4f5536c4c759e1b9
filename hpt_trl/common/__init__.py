"""Helpers that every folder may import: errors, atomic files, masking of secrets, versions, command lines."""
