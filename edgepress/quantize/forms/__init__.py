"""Other integer forms: products that round their input as it comes, 4-bit blocks, int8 LSTM."""
