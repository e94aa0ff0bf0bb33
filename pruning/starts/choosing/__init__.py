"""What is needed to choose a mask at the start: how many weights where, and which make an isometry."""
