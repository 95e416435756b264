"""Apple's side: its rules, answers and the iPhone; sources stand with each rule."""
