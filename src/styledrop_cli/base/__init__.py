"""A base model: networks on a device, the folder they lie in, the words they read, and published weights."""
