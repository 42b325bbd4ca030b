"""What was learnt about answers, and what follows from it: the quality signal, remembered decisions, success."""
