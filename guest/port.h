// The virtio port to the host.
#ifndef TRIO_SANDBOX_PORT_H
#define TRIO_SANDBOX_PORT_H

// Waits for the port with our name, opens it, and waits until the host end is connected: before that, reading it gives
// 0 bytes, which afterwards means that the host hung up. Gives up after `patience_ms`. -1: errno.
int port_open(int patience_ms);

#endif
