"""What llama.cpp assumes about the blocks of each architecture, and what a layer map may therefore do."""
