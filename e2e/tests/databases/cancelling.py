"""A client whose query sleeps, and that cancels it when it gets SIGINT, as safely as its connection is.

    cancelling.py CONNINFO

It ends with the error of the query.
"""

import signal
import sys
import threading

import psycopg

connection = psycopg.connect(sys.argv[1], autocommit=True)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])


def cancel():
    signal.sigwait([signal.SIGINT])
    connection.cancel_safe(timeout=30)


threading.Thread(target=cancel, daemon=True).start()
connection.execute("select pg_sleep(300)")
