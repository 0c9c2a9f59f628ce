"""Sanity checks: do the maps say what the network uses?"""
