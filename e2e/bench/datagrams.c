// Load and floor of the benchmark of UDP listeners. The floor is what the simplest proxy does: one datagram in, one out.
//
//   datagrams floor PORT TO_PORT          recv_from and send, for ever
//   datagrams sink PORT                   takes everything in; prints datagrams and bytes so far for each line on stdin
//   datagrams load TO_PORT SECONDS SENDERS SIZE SEGMENTS
//                                         sends as fast as it goes, SEGMENTS datagrams with one call (1: plain send); prints how many
//
// All on 127.0.0.1.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

enum { ROOM = 65536, BATCH = 32, BUFFER = 4 << 20 };

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static struct sockaddr_in at(const char *port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A socket bound to a port, or connected to one.
static int open_socket(const char *port, const char *to) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0), size = BUFFER;
  if (fd < 0) fail("socket");
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  struct sockaddr_in address = at(port ? port : to);
  if (port && bind(fd, (void *)&address, sizeof address)) fail("bind");
  if (to && connect(fd, (void *)&address, sizeof address)) fail("connect");
  return fd;
}

static void run_floor(const char *port, const char *to) {
  static char buffer[ROOM];
  int in = open_socket(port, NULL), out = open_socket(NULL, to);
  for (;;) {
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    ssize_t count = recvfrom(in, buffer, sizeof buffer, 0, (void *)&from, &length);
    if (count < 0) fail("recvfrom");
    // Full buffers and the like cost a datagram, as everywhere.
    (void)!send(out, buffer, count, 0);
  }
}

static int run_sink(const char *port) {
  static char buffers[BATCH][ROOM];
  static char controls[BATCH][64];
  int fd = open_socket(port, NULL), on = 1;
  setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on);
  uint64_t datagrams = 0, bytes = 0;
  struct pollfd ready[2] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
  for (;;) {
    if (poll(ready, 2, -1) < 0) fail("poll");
    if (ready[1].revents) {
      char line[64];
      if (read(0, line, sizeof line) <= 0) return 0;
      printf("%llu %llu\n", (unsigned long long)datagrams, (unsigned long long)bytes);
      fflush(stdout);
    }
    if (!ready[0].revents) continue;
    struct mmsghdr messages[BATCH] = {0};
    struct iovec slices[BATCH];
    for (int i = 0; i < BATCH; i++) {
      slices[i] = (struct iovec){buffers[i], ROOM};
      messages[i].msg_hdr = (struct msghdr){.msg_iov = &slices[i], .msg_iovlen = 1, .msg_control = controls[i], .msg_controllen = 64};
    }
    int count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++) {
      unsigned length = messages[i].msg_len;
      int segment = length;
      for (struct cmsghdr *c = CMSG_FIRSTHDR(&messages[i].msg_hdr); c; c = CMSG_NXTHDR(&messages[i].msg_hdr, c))
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) memcpy(&segment, CMSG_DATA(c), sizeof segment);
      datagrams += segment > 0 ? (length + segment - 1) / segment : 1;
      bytes += length;
    }
  }
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

static int run_load(const char *to, double limit, int senders, int size, int segments) {
  static char buffer[ROOM];
  int sockets[64];
  if (senders < 1 || senders > 64 || size < 1 || segments < 1 || size * segments > 65507) {
    fprintf(stderr, "datagrams load: 1 to 64 senders, at most 65507 bytes a call\n");
    return 2;
  }
  for (int i = 0; i < senders; i++) {
    sockets[i] = open_socket(NULL, to);
    if (segments > 1 && setsockopt(sockets[i], SOL_UDP, UDP_SEGMENT, &size, sizeof size)) fail("UDP_SEGMENT");
  }
  uint64_t sent = 0;
  double end = seconds() + limit;
  while (seconds() < end)
    for (int i = 0; i < 64; i++)
      if (send(sockets[i % senders], buffer, (size_t)size * segments, 0) > 0) sent += segments;
  printf("%llu\n", (unsigned long long)sent);
  return 0;
}

int main(int count, char **words) {
  if (count == 4 && !strcmp(words[1], "floor")) run_floor(words[2], words[3]);
  if (count == 3 && !strcmp(words[1], "sink")) return run_sink(words[2]);
  if (count == 7 && !strcmp(words[1], "load"))
    return run_load(words[2], atof(words[3]), atoi(words[4]), atoi(words[5]), atoi(words[6]));
  fprintf(stderr, "datagrams floor PORT TO_PORT | sink PORT | load TO_PORT SECONDS SENDERS SIZE SEGMENTS\n");
  return 2;
}
