"""What every room stands on: errors, files, hashes, processes, memory."""
