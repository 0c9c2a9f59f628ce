"""Where the network looked: attention maps as arrays (`attention`) and as one page (`figures`)."""
