"""Instability: do copies that see other noise end in the same place?"""
