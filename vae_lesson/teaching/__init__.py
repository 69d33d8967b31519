"""What makes a notebook a lesson, in every lesson: parameters, tables, figures, checks."""
