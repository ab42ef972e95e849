"""The conformance suite's agent in Python: agent.c's protocol, with the calls made through a socket module's objects.

``AGENT_SOCKET`` names the module: ``socket`` (the oracle, on the kernel) or ``tas_sockets``, without a preloaded
library.  A call of libc becomes the method that a Python program would use for it; its result goes back in the C
function's form (return value, errno, memory).  An exception that is no OSError with an errno is the result as text.
What Python has no call for (wild pointers, flags of accept) is answered ``u REASON``: the scenario is skipped and the
reason counted.
"""
