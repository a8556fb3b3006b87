"""The explorer: three small networks trained at one setting, and their phase."""
