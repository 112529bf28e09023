"""What the tests of the page share: the program, serving a folder's chats."""
import os
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'oracle'))

HADAL = os.environ.get('HADAL', 'build/hadal')
MODEL = os.environ.get('HADAL_TEST_MODEL', '')


class Server:
    def __init__(self, folder, *options, model=MODEL):
        self.folder, self.options, self.model = folder, options, model
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            self.port = s.getsockname()[1]
        self.url = f'http://127.0.0.1:{self.port}/'
        self.start()

    def start(self, **env):
        env = {**os.environ, 'XDG_CACHE_HOME': f'{self.folder}/cache', 'XDG_STATE_HOME': f'{self.folder}/state', **env}
        self.process = subprocess.Popen([HADAL, 'serve', self.model, '--port', str(self.port), '--chats', f'{self.folder}/chats.db', '--sessions', '2', *self.options],
                                        stdout=subprocess.PIPE, stderr=open(f'{self.folder}/log', 'a'), text=True, env=env)
        self.started = self.process.stdout.readline().startswith('http://')

    def stop(self, how=signal.SIGINT):
        self.process.send_signal(how)
        self.process.wait()
        self.process.stdout.close()

    def log(self):
        with open(f'{self.folder}/log') as f:
            return f.read()
