"""What a run was: requests by second and by what became of them, the checks it had to pass, and its verdict.

The Locust scenarios, the replay, the simulator and the soak all write this one document;
the reports, the comparison and the gate read it.
"""
