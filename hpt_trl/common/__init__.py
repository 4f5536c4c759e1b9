"""What every folder may import: errors, atomic files, secrets, versions, command lines."""
