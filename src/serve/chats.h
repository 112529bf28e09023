/* The page's chats on a running server: the store on a thread of its own, and the answers that
 * are being written.
 *
 *   handler (network thread) --> task --> store's thread: all that wait, one transaction, one fsync --> done (network thread)
 *   question stored --> job of the scheduler --> its text into memory, to whoever watches (SSE), once a second into the store
 *
 * An answer belongs to its chat and not to a connection: it goes on when the page is closed, and a page that
 * opens it later gets its text so far and then the rest. */
#ifndef HD_SERVE_CHATS_H
#define HD_SERVE_CHATS_H

#include "serve/server.h"

/* Opens (or makes) the database and starts its thread.  The server is borrowed; its engine must not be in
 * use yet (a short text is rendered to see whether the model's thinking can be switched).  Set
 * server->chats to the result. */
hd_status hd_chats_open(hd_chats **out, hd_server *s, const char *path, hd_err *err);
/* After hd_net_run, before hd_net_close and hd_sched_close: what is running is cut and kept as it is, what
 * waits for the disk is written. */
void hd_chats_close(hd_chats *c);

#endif
