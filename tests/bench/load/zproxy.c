/* A ZeroMQ broker: what the ZeroMQ guide calls a forwarder, XSUB in front of XPUB.
 *
 *   zproxy PUBLISHERS SUBSCRIBERS      two endpoints, ipc:// or tcp://
 *
 * No limit on queues (a limit of ZeroMQ drops); the load generator's window keeps them short.
 */
#include <stdio.h>
#include <zmq.h>

int main(int count, char **names) {
    if (count != 3) return 2;
    void *context = zmq_ctx_new(), *in = zmq_socket(context, ZMQ_XSUB), *out = zmq_socket(context, ZMQ_XPUB);
    int none = 0;
    zmq_setsockopt(in, ZMQ_RCVHWM, &none, sizeof none);
    zmq_setsockopt(out, ZMQ_SNDHWM, &none, sizeof none);
    if (zmq_bind(in, names[1]) || zmq_bind(out, names[2])) {
        fprintf(stderr, "zproxy: %s\n", zmq_strerror(zmq_errno()));
        return 1;
    }
    return zmq_proxy(in, out, NULL);
}
