"""trainings, one by one → which went on and go on, what they printed, when the next is due; and one of them again."""
