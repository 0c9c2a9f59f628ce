"""The command `ecgdan`: one function per verb, its flags and its one-line output."""
