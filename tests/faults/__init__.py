"""The fault corpus: small hosts with a healthy commit, a fault, a probe and tests, and what healing means.

corpus      what a case is, and how its repository is made
efficacy    runs the cases through the healer and prints the table (`make efficacy`)
one module per strategy, with the cases that it should heal and those near it that nobody may patch
"""
