"""Storage: integers in as few bytes as they need, in forms that onnxruntime turns back when it loads the file."""
