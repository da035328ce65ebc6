/*
 * Writes blocks of 4 KiB at random places of a block device, past the page cache, and prints how many in which time.
 *
 *     random-write DEVICE DEPTH SECONDS
 *
 * DEPTH writes are always on their way: io_submit(2), whose wrappers are in no libc.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, MOST = 64 };

static void fail(const char *what)
{
    printf("random-write: error: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

/* Marsaglia's xorshift generator with 64 bits ("Xorshift RNGs", 2003). */
static uint64_t next_random(void)
{
    static uint64_t x;
    if (!x)
        x = (uint64_t)(now() * 1e9) | 1;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        printf("random-write: error: usage: random-write DEVICE DEPTH SECONDS\n");
        return 2;
    }
    int depth = atoi(argv[2]);
    double seconds = atof(argv[3]);
    if (depth < 1 || depth > MOST || seconds <= 0) {
        printf("random-write: error: depth is 1 to %d, and seconds are more than 0\n", MOST);
        return 2;
    }
    int device = open(argv[1], O_WRONLY | O_DIRECT);
    uint64_t size, *content;
    if (device < 0 || ioctl(device, BLKGETSIZE64, &size) < 0)
        fail(argv[1]);
    if (posix_memalign((void **)&content, BLOCK, BLOCK))
        fail("memory");
    for (size_t i = 0; i < BLOCK / sizeof *content; i++)
        content[i] = next_random();
    aio_context_t context = 0;
    if (syscall(SYS_io_setup, MOST, &context) < 0)
        fail("io_setup");

    struct iocb writes[MOST];
    struct io_event done[MOST];
    memset(writes, 0, sizeof writes);
    long count = 0;
    int under_way = 0;
    double begun = now(), end = begun + seconds;
    for (int i = 0; i < depth; i++) {
        done[i].obj = (uint64_t)(uintptr_t)&writes[i];
        done[i].res = BLOCK;
    }
    /* Each that is done is sent again, to another place, until the time is over. */
    for (long ready = depth; ready || under_way;) {
        struct iocb *again[MOST];
        int sent = now() < end ? ready : 0;
        for (int i = 0; i < sent; i++) {
            again[i] = (struct iocb *)(uintptr_t)done[i].obj;
            again[i]->aio_fildes = device;
            again[i]->aio_lio_opcode = IOCB_CMD_PWRITE;
            again[i]->aio_buf = (uint64_t)(uintptr_t)content;
            again[i]->aio_nbytes = BLOCK;
            again[i]->aio_offset = next_random() % (size / BLOCK) * BLOCK;
            again[i]->aio_data = (uint64_t)(uintptr_t)again[i];
        }
        if (sent && syscall(SYS_io_submit, context, sent, again) != sent)
            fail("io_submit");
        under_way += sent;
        if (!under_way)
            break;
        ready = syscall(SYS_io_getevents, context, 1, MOST, done, NULL);
        if (ready < 1)
            fail("io_getevents");
        for (int i = 0; i < ready; i++)
            if (done[i].res != BLOCK) {
                errno = -done[i].res;
                fail("write");
            }
        under_way -= ready;
        count += ready;
    }
    printf("random-write: writes=%ld seconds=%.6f\n", count, now() - begun);
    return 0;
}
