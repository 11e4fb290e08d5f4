"""What the scenarios send their load to: small services, each a process of its own on loopback.

They mostly wait, so that what is scarce is the service and never the machine. The protected variants have the real
load shedder and the real commands; faults are put into them while they run.
"""
