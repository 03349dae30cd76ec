"""Generators and discriminators: built-in architectures and those of users."""
