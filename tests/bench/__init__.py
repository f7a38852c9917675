"""What a stranger runs to see the numbers; C{README.rst} says how."""
