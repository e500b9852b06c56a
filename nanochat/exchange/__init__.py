"""Models out of this project and into it: Hugging Face, GGUF, MLX, and the hub."""
