"""What is done with personal data: regimes, actions, purposes, and where each of them is asked."""
