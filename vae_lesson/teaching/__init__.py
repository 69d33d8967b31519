"""What makes a notebook a lesson: parameters, tables, figures, checks, the learner's own copies."""
