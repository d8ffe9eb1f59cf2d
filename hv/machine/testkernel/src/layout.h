// Addresses that both the assembler and the linker's output rely on.
#define TRAMPOLINE 0x8000 // a page below 1 MiB; start-up vector 8
