"""What the sender wrote, and to whom: pure values, checked, without any I/O."""
