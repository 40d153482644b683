"""Tests inside a virtual machine with Debian's kernel, for what other kernels may lack."""
