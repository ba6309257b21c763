"""The whole job in one command. It starts other subcommands as processes and reads what they write, and imports none of them."""
