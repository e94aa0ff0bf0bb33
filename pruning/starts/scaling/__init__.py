"""Starts and learning rates that hold while a network grows wider, sparser or deeper: μP, SμPar, graphs."""
