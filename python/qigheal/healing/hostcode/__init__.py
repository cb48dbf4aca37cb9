"""The host's Python code as a whole, as strategies read it: parsed, never imported, and of no strategy's own.

program     the files, what each binds, and who names what
reflection  what reads or sets a name without having it in plain sight
wording     how a name is spelled
"""
