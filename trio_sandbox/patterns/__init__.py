"""What is built of handles and task groups alone: anyio only, like `client`, so it works on Trio and on asyncio.

    race.py         the first success wins
    mapping.py      a function over many items, each in a sandbox of its own
    capture.py      bounded output
    supervise.py    a sandbox that is made again; restarts.py: when; lives.py: from one start to its end
    readiness.py    waiting until something in the guest is ready; listening.py: what listens
    errors.py       what they raise beside what everything raises

A lone failure leaves these bare, several leave as an ExceptionGroup.
"""
