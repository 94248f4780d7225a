"""A batch in parts that a CPU's cores compute at the same time. The only room that uses OneFlow's private interfaces."""
