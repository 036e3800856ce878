"""What people may ask for of their own data: who they are, what is kept out for them, what they get as proof."""
