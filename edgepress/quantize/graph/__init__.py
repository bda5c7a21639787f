"""The int8 graph: which nodes run in int8, where Q and DQ stand, what fuses, which operator set it needs."""
